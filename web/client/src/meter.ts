/** Paths of a meter's routes. */

/** The meter of chat messages. */
const CHAT = "chat";

/**
 * Returns the path of the routes of a meter; `chat` by default.
 * @throws TypeError if it is not a lower-case letter and up to 31 of `a-z 0-9 -`
 */
export function quotaPath(meter: string = CHAT): string {
    if (!/^[a-z][a-z0-9-]{0,31}$/.test(meter)) throw new TypeError(`not the name of a meter: ${JSON.stringify(meter)}`);
    return `/api/${meter}/quota`;
}
