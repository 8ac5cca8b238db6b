/** The result of a price replay as CSV, with the rows of `quota-gate replay --format csv`. */

import type { Replayed } from "./api.js";

const HEADER =
    "section,level,name,users,messages,ap,overage,proposedAp,proposedOverage,deniedUsers,deniedMessages,deniedAp";

export function csvOf(result: Replayed): string {
    const sums = (of: Replayed["total"]) => [
        of.users,
        of.messages,
        of.ap,
        of.overage,
        of.proposedAp,
        of.proposedOverage,
        of.deniedUsers,
        of.deniedMessages,
        of.deniedAp,
    ];
    const rows: (string | number)[][] = [
        ["total", "", "", ...sums(result.total)],
        ...result.levels.map((level) => ["level", level.membershipLevel, "", ...sums(level)]),
        ...result.levels.flatMap(({ membershipLevel, limits }) =>
            limits.map(({ limit, users, messages }) => [
                ...["limit", membershipLevel, limit, "", "", "", "", "", ""],
                ...[users, messages, ""],
            ]),
        ),
        ...result.levels.flatMap(({ membershipLevel, firstDenials }) =>
            firstDenials.map(({ day, users }) => [
                ...["firstDenials", membershipLevel, day, "", "", "", "", "", ""],
                ...[users, "", ""],
            ]),
        ),
        ...result.mostAffected.map((user) => [
            ...["user", user.membershipLevel, plain(user.userUuid), "", user.messages, user.ap, "", user.proposedAp],
            ...["", "", user.deniedMessages, user.deniedAp],
        ]),
    ];
    return [HEADER, ...rows.map((row) => row.map(quoted).join(","))].join("\n") + "\n";
}

/** Escapes an id that a spreadsheet would treat as a formula. <https://owasp.org/www-community/attacks/CSV_Injection> */
function plain(text: string): string {
    return /^[=+\-@]/.test(text) ? `'${text}` : text;
}

function quoted(cell: string | number): string {
    const text = String(cell);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
