//! What a product sells, as `dev` shows it: models of two prices, a level with a window, and a pack.

use crate::{
    billing::PackOptions,
    config::{Config, LevelSection, Price},
};

/// Cost of the second local model, in AP: a few of its answers use up a quota or a window.
const LARGE_MODEL_COST: u32 = 25;
/// The level with a window, and its quota where the configuration does not change it.
const WINDOW_LEVEL: (&str, u32) = ("basic", 300);
/// Its window, in AP.
const WINDOW: (&str, u32) = ("5h", 75);
/// The pack that the page sells.
const PACK: &str = "pack-50";
const PACK_AP: u32 = 50;

/// Adds them to the configuration, except what it has itself.
pub(super) fn add(config: &mut Config) {
    config.models.prices.entry("local".to_owned()).or_insert(Price::Flat(1));
    config.models.prices.entry("local-large".to_owned()).or_insert(Price::Flat(LARGE_MODEL_COST));
    let (level, quota) = WINDOW_LEVEL;
    if let Some(section) = config.levels.get_mut(level)
        && *section == LevelSection::Quota(quota)
    {
        *section = LevelSection::with_window(quota, WINDOW.0, WINDOW.1);
    }
    let pack = PackOptions { ap: PACK_AP.into(), expires_after: Some("365d".to_owned()), priority: None };
    config.billing.packs.entry(PACK.to_owned()).or_insert(pack);
}
