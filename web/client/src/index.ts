/** Client of a quota gate for Node, edge runtimes and browsers. */

export { dataOf } from "./events.js";
export { QuotaExceededError, QuotaGateError } from "./errors.js";
export {
    type Cost,
    type Generation,
    type Message,
    QuotaGate,
    type RequestOptions,
    type WithQuotaOptions,
} from "./gate.js";
export type { TransportOptions } from "./transport.js";
export type {
    Accepted,
    Code,
    Committed,
    Consumed,
    LevelChanged,
    Quota,
    Released,
    Reservation,
    Upgrade,
} from "./types.js";
