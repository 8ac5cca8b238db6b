//! What answers have in common. Only `problem` knows status codes.

pub(crate) mod headers;
pub(crate) mod problem;
pub(crate) mod quota;
pub(crate) mod refusals;
