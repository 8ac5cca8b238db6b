/** Stores drafts for the lifetime of the tab. Does nothing where the browser blocks storage or has no space left. */

const PREFIX = "quota-gate-draft:";

/** Returns the stored draft; null if there is none, or without a key. */
export function readDraft(key: string | undefined): string | null {
    if (key === undefined) return null;
    try {
        return sessionStorage.getItem(PREFIX + key);
    } catch {
        return null;
    }
}

/** Stores a draft, or deletes it if it is empty. */
export function writeDraft(key: string | undefined, text: string): void {
    if (key === undefined) return;
    try {
        if (text === "") sessionStorage.removeItem(PREFIX + key);
        else sessionStorage.setItem(PREFIX + key, text);
    } catch {
        // The draft stays in the input.
    }
}
