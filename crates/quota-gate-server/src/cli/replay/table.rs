//! The result of a replay as tables for people.

use crate::cli::output::say;
use crate::price_replay::{PriceReplayBody, ReplayedLevelBody, SumsBody};

/// Maximum users to print. The other formats have more.
const USERS_MAX: usize = 20;

pub(super) fn print(result: &PriceReplayBody) {
    say!("{} to {} ({})", result.from, result.to, result.time_zone);
    let head = ["level", "quota", "users", "messages", "AP", "overage", "new AP", "new overage"];
    let denied = ["denied users", "denied messages", "their AP"];
    let mut rows = vec![head.into_iter().chain(denied).map(str::to_owned).collect()];
    for level in &result.levels {
        rows.push(level_row(&level.membership_level, &quota_of(level), &level.sums));
    }
    rows.push(level_row("total", "", &result.total));
    print_table(&rows);
    print_denials(result);
    for note in &result.notes {
        say!("note: {note}");
    }
}

fn print_denials(result: &PriceReplayBody) {
    if result.total.denied_messages == 0 {
        say!("no message would have been denied");
        return;
    }
    let mut rows = vec![["level", "denied by", "users", "messages"].map(str::to_owned).to_vec()];
    for level in &result.levels {
        for limit in level.limits.iter().filter(|limit| limit.messages > 0) {
            let name = level.membership_level.clone();
            rows.push(vec![name, limit.limit.clone(), limit.users.to_string(), limit.messages.to_string()]);
        }
    }
    print_table(&rows);
    rows = vec![["level", "first denial on", "users"].map(str::to_owned).to_vec()];
    for level in &result.levels {
        let days = level.first_denials.iter();
        rows.extend(days.map(|first| vec![level.membership_level.clone(), first.day.clone(), first.users.to_string()]));
    }
    print_table(&rows);
    let head = ["user", "level", "first denied at", "messages", "AP", "new AP", "denied messages", "their AP"];
    rows = vec![head.map(str::to_owned).to_vec()];
    for user in result.most_affected.iter().take(USERS_MAX) {
        let names = [&user.user_uuid, &user.membership_level, &user.first_denied_at].map(Clone::clone);
        let numbers = [user.messages, user.ap, user.proposed_ap, user.denied_messages, user.denied_ap];
        rows.push(names.into_iter().chain(numbers.map(|number| number.to_string())).collect());
    }
    print_table(&rows);
}

fn quota_of(level: &ReplayedLevelBody) -> String {
    let windows = level.windows.iter().map(|window| {
        let unit = serde_json::to_value(window.unit).unwrap_or_default();
        format!(", {} {} in {}", window.limit, unit.as_str().unwrap_or_default(), window.every)
    });
    let quota = level.quota.map_or("unlimited".to_owned(), |quota| quota.to_string());
    std::iter::once(quota).chain(windows).collect()
}

fn level_row(name: &str, quota: &str, sums: &SumsBody) -> Vec<String> {
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
    [name, quota].map(str::to_owned).into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

/// Prints rows with aligned columns, and an empty line before them. The first row is the head.
fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    say!("");
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let is_number = cell.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
