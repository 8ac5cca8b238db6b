/** A page that only shows what is left. */

export { ChatQuotaDisplay, QuotaProvider, QuotaStore, useChatQuota } from "@quota-gate/react";
