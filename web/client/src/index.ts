/** Client of a quota gate for Node, edge runtimes and browsers. */

export { dataOf } from "./events.js";
export { QuotaExceededError, QuotaGateError } from "./errors.js";
export {
    type Cost,
    type Generation,
    type Message,
    QuotaGate,
    type QuotaGateOptions,
    type RequestOptions,
    type WithQuotaOptions,
} from "./gate.js";
export type { TransportOptions } from "./transport.js";
export type {
    Accepted,
    BindingLimit,
    Code,
    Committed,
    Consumed,
    LevelChanged,
    Limit,
    LiveGrant,
    Quota,
    Released,
    Remedy,
    Reservation,
    Upgrade,
} from "./types.js";
