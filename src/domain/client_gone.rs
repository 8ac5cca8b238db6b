//! What a broken-off answer costs.

/// What a message costs whose client has gone, or whose answer has broken off, after content was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientGone {
    /// What it would have cost: it was generated.
    #[default]
    Charge,
    /// Nothing.
    Release,
    /// The part that was delivered, by the length that the answer declared; all of it where none was declared.
    Proportion,
}
