//! The messages of `envoy.service.ratelimit.v3`, with the numbers of its proto files. Fields that the gate neither reads nor writes
//! are left out: protobuf skips them.

/// `envoy.service.ratelimit.v3.RateLimitRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RateLimitRequest {
    /// Which configuration this is for.
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    /// What the request is described by.
    #[prost(message, repeated, tag = "2")]
    pub(super) descriptors: Vec<Descriptor>,
    /// How many hits this is; 0 stands for 1.
    #[prost(uint32, tag = "3")]
    pub(super) hits_addend: u32,
}

/// `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Descriptor {
    /// Keys and values.
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    /// How many hits this is for this descriptor; stronger than that of the request.
    #[prost(message, optional, tag = "3")]
    pub(super) hits_addend: Option<HitsAddend>,
}

/// `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Entry {
    /// What it is.
    #[prost(string, tag = "1")]
    pub(super) key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `google.protobuf.UInt64Value`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct HitsAddend {
    /// The number.
    #[prost(uint64, tag = "1")]
    pub(super) value: u64,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RateLimitResponse {
    /// May the request pass?
    #[prost(enumeration = "Code", tag = "1")]
    pub(super) overall_code: i32,
    /// One for each descriptor, in order.
    #[prost(message, repeated, tag = "2")]
    pub(super) statuses: Vec<DescriptorStatus>,
    /// For the client, whether it may pass or not.
    #[prost(message, repeated, tag = "3")]
    pub(super) response_headers_to_add: Vec<HeaderValue>,
    /// The body of a refusal.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) raw_body: Vec<u8>,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse.DescriptorStatus`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct DescriptorStatus {
    /// May the request pass, by this descriptor?
    #[prost(enumeration = "Code", tag = "1")]
    pub(super) code: i32,
    /// The limit.
    #[prost(message, optional, tag = "2")]
    pub(super) current_limit: Option<RateLimit>,
    /// What is left of it.
    #[prost(uint32, tag = "3")]
    pub(super) limit_remaining: u32,
    /// When it is full again.
    #[prost(message, optional, tag = "4")]
    pub(super) duration_until_reset: Option<Duration>,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse.RateLimit`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RateLimit {
    /// How much.
    #[prost(uint32, tag = "1")]
    pub(super) requests_per_unit: u32,
    /// In which time.
    #[prost(enumeration = "Unit", tag = "2")]
    pub(super) unit: i32,
    /// What it is called.
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    /// And a part.
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// `envoy.config.core.v3.HeaderValue`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HeaderValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub(super) key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse.Code`
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Code {
    /// Never sent.
    Unknown = 0,
    /// It may pass.
    Ok = 1,
    /// It may not.
    OverLimit = 2,
}

/// `envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit`
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Unit {
    /// Never sent.
    Unknown = 0,
    /// A calendar month.
    Month = 5,
}
