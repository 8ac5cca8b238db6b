//! The result of a replay as CSV: one table, whose column `section` says what a row is about.

use crate::price_replay::{PriceReplayBody, SumsBody};

const HEADER: [&str; 12] = [
    "section",
    "level",
    "name",
    "users",
    "messages",
    "ap",
    "overage",
    "proposedAp",
    "proposedOverage",
    "deniedUsers",
    "deniedMessages",
    "deniedAp",
];

/// | section | a row for each |
/// | --- | --- |
/// | `total` | only one |
/// | `level` | level |
/// | `limit` | limit of a level: users and messages that it denied |
/// | `firstDenials` | level and day: users who would have been denied for the first time |
/// | `user` | user of the most affected |
pub(super) fn rows(result: &PriceReplayBody) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER)?;
    writer.write_record(with_sums("total", "", "", &result.total))?;
    for level in &result.levels {
        writer.write_record(with_sums("level", &level.membership_level, "", &level.sums))?;
    }
    for level in &result.levels {
        for limit in &level.limits {
            let denied = [limit.users.to_string(), limit.messages.to_string()];
            let [users, messages] = &denied;
            let name = &limit.limit;
            let row = ["limit", &level.membership_level, name, "", "", "", "", "", "", users, messages, ""];
            writer.write_record(row)?;
        }
    }
    for level in &result.levels {
        for first in &level.first_denials {
            let (users, day) = (first.users.to_string(), &first.day);
            let row = ["firstDenials", &level.membership_level, day, "", "", "", "", "", "", &users, "", ""];
            writer.write_record(row)?;
        }
    }
    for user in &result.most_affected {
        let numbers = [user.messages, user.ap, user.proposed_ap, user.denied_messages, user.denied_ap];
        let [messages, ap, proposed_ap, denied_messages, denied_ap] = &numbers.map(|number| number.to_string());
        let (level, name) = (&user.membership_level, plain(&user.user_uuid));
        let row = ["user", level, &name, "", messages, ap, "", proposed_ap, "", "", denied_messages, denied_ap];
        writer.write_record(row)?;
    }
    Ok(writer.into_inner()?)
}

fn with_sums(section: &str, level: &str, name: &str, sums: &SumsBody) -> Vec<String> {
    let numbers = [
        sums.users,
        sums.messages,
        sums.ap,
        sums.overage,
        sums.proposed_ap,
        sums.proposed_overage,
        sums.denied_users,
        sums.denied_messages,
        sums.denied_ap,
    ];
    let names = [section, level, name].map(str::to_owned);
    names.into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

/// Escapes an id that a spreadsheet would treat as a formula. <https://owasp.org/www-community/attacks/CSV_Injection>
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}
