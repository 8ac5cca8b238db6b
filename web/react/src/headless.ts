/** Everything without markup: the store, the hooks and the functions of a quota. */

export { QuotaProvider, type QuotaProviderProps } from "./context.js";
export {
    availableOf,
    type Blocked,
    blockedBy,
    fillOf,
    lengthText,
    type Level,
    momentText,
    relativeText,
    resetText,
    shorterLimits,
} from "./derive.js";
export {
    type ChatInputOptions,
    type ChatQuota,
    type Denial,
    useChatInput,
    useChatQuota,
    useNow,
    useThresholdAnnouncement,
} from "./hooks.js";
export { en, type Messages } from "./messages.js";
export { type QuotaSource, type QuotaState, QuotaStore, type QuotaStoreOptions, type Status } from "./store.js";
