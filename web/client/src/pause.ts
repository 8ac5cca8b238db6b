/** Waits so long, or until the signal says otherwise. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        const stop = () => {
            clearTimeout(timer);
            resolve();
        };
        signal?.addEventListener("abort", stop, { once: true });
    });
}

/** A part of it, so that not everybody who failed at the same time comes back at the same time. */
export function jittered(ms: number): number {
    return ms * (0.5 + Math.random() / 2);
}
