//! A reference to another object of Stripe: its id, or the object itself if it was expanded.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Reference {
    Id(String),
    Object { id: String },
}

impl Reference {
    pub(super) fn id(&self) -> &str {
        let (Self::Id(id) | Self::Object { id }) = self;
        id
    }

    pub(super) fn into_id(self) -> String {
        let (Self::Id(id) | Self::Object { id }) = self;
        id
    }
}
