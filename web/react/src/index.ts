/** Components that show users their chat quota. The styles are in `@quota-gate/react/styles.css`. */

export { ChatInput, type ChatInputProps } from "./ChatInput.js";
export { ChatQuotaDisplay, type ChatQuotaDisplayProps } from "./ChatQuotaDisplay.js";
export * from "./headless.js";
export { QuotaExceededDialog, type QuotaExceededDialogProps } from "./QuotaExceededDialog.js";
