/** Waits `ms` milliseconds, or until `signal` aborts. */
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

/** Returns 50 to 100 percent of `ms`, so that clients that failed together do not retry together. */
export function jittered(ms: number): number {
    return ms * (0.5 + Math.random() / 2);
}
