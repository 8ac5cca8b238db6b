//! Shared parts of answers. Only `problem` maps errors to status codes.

pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod problem;
pub(crate) mod quota;
pub(crate) mod refusals;
pub(crate) mod remedies;
pub(crate) mod time;
