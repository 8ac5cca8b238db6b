/** A page that only displays the quota. */

export { ChatQuotaDisplay, QuotaProvider, QuotaStore, useChatQuota } from "@quota-gate/react";
