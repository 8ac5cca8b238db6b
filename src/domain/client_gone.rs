//! Cost of an interrupted answer.

/// Cost of a message whose client disconnected or whose answer was interrupted after content was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientGone {
    /// The full cost: the answer was generated.
    #[default]
    Charge,
    /// Nothing.
    Release,
    /// The delivered share of the length that the answer declared; the full cost if it declared none.
    Proportion,
}
