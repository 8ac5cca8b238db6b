import { type Quota, QuotaExceededError, QuotaGateError, type Remedy } from "@quota-gate/client";
import { type ReactNode, StrictMode, version } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { page, userEvent } from "vitest/browser";
import { render } from "vitest-browser-react";
import { quotaOf } from "../gallery/stories.js";
import {
    blockedBy,
    ChatInput,
    ChatQuotaDisplay,
    QuotaExceededDialog,
    QuotaProvider,
    type QuotaSource,
    QuotaStore,
    useChatQuota,
} from "../src/index.js";
import "../src/styles.css";

declare const REACT_MAJOR: string;

/** A gate that the test controls. */
class Gate implements QuotaSource {
    asked = 0;
    #now: Quota | Error;
    #told: ((quota: Quota) => void) | undefined;
    #failed: ((error: Error) => void) | undefined;

    constructor(now: Quota | Error) {
        this.#now = now;
    }

    set(now: Quota | Error) {
        this.#now = now;
    }

    /** Sends the quota on the stream. */
    tell(quota: Quota) {
        this.#now = quota;
        this.#told?.(quota);
    }

    /** Ends the stream with an error. */
    fail(error: Error) {
        this.#failed?.(error);
    }

    quota = async () => {
        this.asked++;
        if (this.#now instanceof Error) throw this.#now;
        return this.#now;
    };

    async *watch(_: string | undefined, { signal }: { signal?: AbortSignal } = {}) {
        while (!signal?.aborted) {
            yield await new Promise<Quota>((resolve, reject) => {
                this.#told = resolve;
                this.#failed = reject;
                signal?.addEventListener("abort", () => reject(new Error("over")));
            });
        }
    }
}

const shown = (store: QuotaStore | null, children: ReactNode) =>
    render(
        <StrictMode>
            <QuotaProvider store={store}>{children}</QuotaProvider>
        </StrictMode>,
    );

const send = () => page.getByRole("button", { name: "Send" });
const box = () => page.getByRole("textbox", { name: "Message" });

beforeEach(async () => {
    sessionStorage.clear();
    await page.viewport(400, 700);
});

afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
});

test("the tests run on the React version of their project", () => {
    expect(version.split(".")[0]).toBe(REACT_MAJOR);
});

describe("the store", () => {
    test("keeps the newer of two quotas, whatever their order and source", () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(0)), initialQuota: quotaOf(100, { version: 5 }) });
        store.apply(quotaOf(200, { version: 4 }));
        expect(store.getSnapshot().quota?.remaining).toBe(100);
        store.apply(quotaOf(90, { version: 6 }));
        expect(store.getSnapshot().quota?.remaining).toBe(90);
        // A hold expired: another number, the same version.
        store.apply(quotaOf(95, { version: 6, asOf: "2026-11-23T10:00:05.000Z" }));
        expect(store.getSnapshot().quota?.remaining).toBe(95);
        // Redis is unavailable: the quota from Postgres is shown and marked as stale.
        store.apply(quotaOf(97, { version: 1, source: "postgres", asOf: "2026-11-23T10:00:06.000Z" }));
        expect(store.getSnapshot()).toMatchObject({ status: "stale", quota: { remaining: 97 } });
        // An older quota from Postgres does not replace the known one, which is marked as stale too.
        store.apply(quotaOf(200, { version: 1, source: "postgres", asOf: "2026-11-23T09:00:00.000Z" }));
        expect(store.getSnapshot()).toMatchObject({ status: "stale", quota: { remaining: 97 } });
        store.apply(quotaOf(94, { version: 7, asOf: "2026-11-23T10:00:07.000Z" }));
        expect(store.getSnapshot()).toMatchObject({ status: "ready", quota: { remaining: 94 } });
    });

    test("a failed fetch marks the known quota as stale, and is an error without one", async () => {
        const gate = new Gate(new Error("unavailable"));
        const fresh = new QuotaStore({ source: gate });
        await fresh.refresh();
        expect(fresh.getSnapshot().status).toBe("error");
        const known = new QuotaStore({ source: gate, initialQuota: quotaOf(100) });
        await known.refresh();
        expect(known.getSnapshot()).toMatchObject({ status: "stale", quota: { remaining: 100 } });
        gate.set(quotaOf(100));
        await known.refresh();
        expect(known.getSnapshot().status).toBe("ready");
    });

    test.each([
        ["the quota is unknown", undefined, new Error("unavailable")],
        ["the quota is known", quotaOf(100), new Error("unavailable")],
        ["Postgres answers", quotaOf(100), quotaOf(97, { version: 1, source: "postgres" })],
    ])("is ready again soon after an outage, without any event: %s", async (_, initialQuota, outage) => {
        vi.useFakeTimers({ now: new Date("2026-11-23T10:00:10Z") });
        const gate = new Gate(outage);
        const store = new QuotaStore({ source: gate, initialQuota });
        const stop = store.subscribe(() => undefined);
        await store.refresh();
        expect(store.getSnapshot().status).toBe(initialQuota ? "stale" : "error");
        await vi.advanceTimersByTimeAsync(60_000);
        const asked = gate.asked;
        expect(asked).toBeGreaterThan(2);
        // Redis has the same version as before, and the clock of this gate is behind.
        gate.set(quotaOf(100, { asOf: "2026-11-23T09:59:00.000Z" }));
        await vi.advanceTimersByTimeAsync(61_000);
        expect(store.getSnapshot()).toMatchObject({ status: "ready", error: undefined, quota: { source: "redis" } });
        expect(gate.asked).toBeLessThanOrEqual(asked + 2);
        stop();
    });

    test("a rejected token is reported once and not retried, and the stream resumes after a new sign-in", async () => {
        vi.useFakeTimers({ now: new Date("2026-11-23T10:00:10Z") });
        const gate = new Gate(quotaOf(100));
        const onSignedOut = vi.fn();
        const store = new QuotaStore({ source: gate, onSignedOut });
        const stop = store.subscribe(() => undefined);
        await vi.advanceTimersByTimeAsync(1);
        const rejected = new QuotaGateError("expired", { status: 401, code: "UNAUTHENTICATED" });
        gate.set(rejected);
        gate.fail(rejected);
        await store.refresh();
        await store.refresh();
        expect(store.getSnapshot()).toMatchObject({ status: "signedOut", quota: { remaining: 100 } });
        expect(onSignedOut).toHaveBeenCalledOnce();
        const asked = gate.asked;
        await vi.advanceTimersByTimeAsync(60_000);
        expect(gate.asked).toBe(asked);
        gate.set(quotaOf(100));
        await store.refresh();
        expect(store.getSnapshot().status).toBe("ready");
        gate.tell(quotaOf(90, { version: 2 }));
        await vi.advanceTimersByTimeAsync(1);
        expect(store.getSnapshot().quota?.remaining).toBe(90);
        stop();
    });

    test("a message is pending until the known quota includes it, whatever other messages do", async () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(100)), initialQuota: quotaOf(100) });
        const pending = () => store.getSnapshot().pending;
        const first = store.hold(10);
        const second = store.hold(20);
        expect(pending()).toBe(30);
        store.apply(quotaOf(90, { version: 2, monthlyUsed: 200, held: 10 }));
        expect(pending()).toBe(20);
        // The first message cost less than was held.
        store.apply(quotaOf(97, { version: 3, monthlyUsed: 203 }));
        expect(pending()).toBe(20);
        store.apply(quotaOf(70, { version: 4, monthlyUsed: 230 }));
        expect(pending()).toBe(0);
        first();
        second();
        expect(pending()).toBe(0);
        // In a new period, older messages take nothing from the quota. Its own ones end when they are answered.
        store.hold(5);
        store.apply(quotaOf(300, { version: 5, period: "2026-12" }));
        const third = store.hold(7);
        expect(pending()).toBe(7);
        third();
        third();
        expect(pending()).toBe(0);
    });

    test("fetches at the reset and on focus, but not after the last listener is removed", async () => {
        vi.useFakeTimers({ now: new Date("2026-11-30T23:59:00Z") });
        const gate = new Gate(quotaOf(0));
        const store = new QuotaStore({ source: gate, initialQuota: quotaOf(0) });
        const stop = store.subscribe(() => undefined);
        gate.set(
            quotaOf(300, {
                version: 2,
                period: "2026-12",
                quotaResetAt: "2027-01-01T00:00:00Z",
                asOf: "2026-12-01T00:00:01.000Z",
            }),
        );
        expect(gate.asked).toBe(0);
        await vi.advanceTimersByTimeAsync(64_000);
        expect(store.getSnapshot().quota?.remaining).toBe(300);
        await vi.advanceTimersByTimeAsync(5000);
        const asked = gate.asked;
        window.dispatchEvent(new Event("focus"));
        await vi.advanceTimersByTimeAsync(1);
        expect(gate.asked).toBe(asked + 1);
        stop();
        await vi.advanceTimersByTimeAsync(86_400_000);
        window.dispatchEvent(new Event("focus"));
        expect(gate.asked).toBe(asked + 1);
    });
});

describe("the display", () => {
    test("shows the remaining AP as a meter and follows the stream", async () => {
        const gate = new Gate(quotaOf(241));
        const { getByRole } = await shown(new QuotaStore({ source: gate }), <ChatQuotaDisplay />);
        await expect.element(getByRole("meter", { name: "Chat quota" })).toHaveAttribute("aria-valuenow", "241");
        await expect
            .element(getByRole("meter"))
            .toHaveAttribute("aria-valuetext", expect.stringMatching(/241 of 300 AP left. Resets .*Dec 1, 2026/));
        gate.tell(quotaOf(41, { version: 2 }));
        await expect.element(getByRole("meter")).toHaveAttribute("aria-valuenow", "41");
    });

    test("announces a threshold once, when the quota crosses it", async () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(70)), initialQuota: quotaOf(70) });
        const { getByRole } = await shown(store, <ChatQuotaDisplay />);
        const said = getByRole("status");
        await expect.element(said).toBeEmptyDOMElement();
        store.apply(quotaOf(50, { version: 2 }));
        await expect.element(said).toHaveTextContent("You have used more than 80% of your chat quota. 50 AP are left.");
        store.apply(quotaOf(45, { version: 3 }));
        await expect.element(page.getByText("45 of 300 AP left")).toBeVisible();
        await expect.element(said).toHaveTextContent("50 AP are left.");
        store.apply(quotaOf(0, { version: 4 }));
        await expect.element(said).toHaveTextContent("Your chat quota is used up.");
    });

    test("shows times in the quota's time zone, also across a daylight saving change", async () => {
        const quota = quotaOf(100, { timeZone: "Europe/Berlin", quotaResetAt: "2026-10-31T23:00:00Z", version: 3 });
        const store = new QuotaStore({ source: new Gate(quota), initialQuota: quota });
        await shown(store, <ChatQuotaDisplay />);
        await expect.element(page.getByText(/Nov 1, 2026.*12:00 AM.*GMT\+1/)).toBeVisible();
    });
});

describe("the display, when something is unusual", () => {
    test("a time zone that the browser does not know, or a time that is none, breaks nothing", async () => {
        const strange = { timeZone: "Mars/Olympus_Mons" };
        const store = new QuotaStore({ source: new Gate(quotaOf(41, strange)), initialQuota: quotaOf(41, strange) });
        await shown(store, <ChatQuotaDisplay />);
        await expect.element(page.getByText(/Dec 1, 2026.*12:00 AM.*UTC/)).toBeVisible();
        store.apply(quotaOf(40, { version: 2, quotaResetAt: "" }));
        await expect.element(page.getByText("40 of 300 AP left")).toBeVisible();
    });

    test("asks a signed-out user to sign in", async () => {
        const rejected = new QuotaGateError("expired", { status: 401, code: "UNAUTHENTICATED" });
        const gate = new Gate(rejected);
        await shown(new QuotaStore({ source: gate }), <ChatQuotaDisplay />);
        await expect.element(page.getByText("Sign in again to see your quota.")).toBeVisible();
        gate.set(quotaOf(41));
        await page.getByRole("button", { name: "Check again" }).click();
        await expect.element(page.getByText("41 of 300 AP left")).toBeVisible();
        expect(page.getByText("Sign in again").elements()).toEqual([]);
    });

    test("announces nothing about one user to the next", async () => {
        const storeOf = (remaining: number) =>
            new QuotaStore({ source: new Gate(quotaOf(remaining)), initialQuota: quotaOf(remaining) });
        const view = (store: QuotaStore) => (
            <QuotaProvider store={store}>
                <ChatQuotaDisplay />
            </QuotaProvider>
        );
        const first = storeOf(70);
        const { getByRole, rerender } = await render(view(first));
        first.apply(quotaOf(50, { version: 2 }));
        await expect.element(getByRole("status")).toHaveTextContent("50 AP are left.");
        await rerender(view(storeOf(9)));
        await expect.element(page.getByText("9 of 300 AP left")).toBeVisible();
        await expect.element(getByRole("status")).toBeEmptyDOMElement();
    });
});

describe("the input", () => {
    test("while an answer streams, the input, the meter and the dialog count its AP once", async () => {
        const gate = new Gate(quotaOf(50));
        const store = new QuotaStore({ source: gate, initialQuota: quotaOf(50) });
        let answer = () => {};
        const onSend = () => new Promise<void>((resolve) => (answer = resolve));
        const onBlocked = vi.fn();
        await shown(store, [
            <ChatQuotaDisplay key="d" />,
            <ChatInput key="i" onSend={onSend} cost={25} onBlocked={onBlocked} />,
        ]);
        await box().fill("Hello");
        await userEvent.keyboard("{Enter}");
        await expect.element(page.getByText("25 AP pending")).toBeVisible();
        // The gate holds the AP: they are no longer in `remaining`.
        gate.tell(quotaOf(25, { version: 2, monthlyUsed: 250, held: 25 }));
        await expect.element(page.getByRole("meter")).toHaveAttribute("aria-valuenow", "25");
        await expect.element(page.getByText("25 AP held for answers in progress")).toBeVisible();
        await expect.element(page.getByText("25 AP pending")).not.toBeInTheDocument();
        await expect.element(page.getByText("Costs 25 AP")).toBeVisible();
        expect(document.body.textContent).not.toContain("0 AP are left");
        await box().fill("And then?");
        await userEvent.keyboard("{Enter}");
        expect(onBlocked).not.toHaveBeenCalled();
        gate.set(quotaOf(25, { version: 3 }));
        answer();
        await expect.element(send()).toHaveAttribute("aria-disabled", "false");
    });

    test("claims that nothing was charged only if that is known", async () => {
        let failure: Error = new Error("the connection broke");
        const onSend = () => Promise.reject(failure);
        await shown(null, <ChatInput onSend={onSend} />);
        await box().fill("Hello");
        await userEvent.keyboard("{Enter}");
        await expect.element(page.getByRole("status")).toHaveTextContent("The answer failed. Your message is kept.");
        // The note is about that attempt.
        await userEvent.keyboard("!");
        await expect.element(page.getByRole("status")).toBeEmptyDOMElement();
        failure = new QuotaExceededError(
            {
                type: "",
                title: "denied",
                status: 429,
                code: "QUOTA_EXCEEDED",
                required: 1,
                remaining: 0,
                shortfall: 1,
                quotaResetAt: "2026-12-01T00:00:00Z",
                recommendedUpgrade: null,
            },
            undefined,
        );
        await userEvent.keyboard("{Enter}");
        await expect.element(page.getByRole("status")).toHaveTextContent("Nothing was charged");
    });

    test("works where the browser blocks storage", async () => {
        const blocked = () => {
            throw new DOMException("blocked", "SecurityError");
        };
        for (const name of ["getItem", "setItem", "removeItem"] as const) {
            vi.spyOn(Storage.prototype, name).mockImplementation(blocked);
        }
        const onSend = vi.fn();
        await shown(null, <ChatInput onSend={onSend} draftKey="chat-1" />);
        await box().fill("Hello");
        await userEvent.keyboard("{Enter}");
        expect(onSend).toHaveBeenCalledWith("Hello");
    });

    test("sends on Enter, shows pending AP, and does not subtract them from the remaining AP", async () => {
        const gate = new Gate(quotaOf(241));
        const store = new QuotaStore({ source: gate, initialQuota: quotaOf(241) });
        let answer = () => {};
        const onSend = vi.fn(() => new Promise<void>((resolve) => (answer = resolve)));
        await shown(store, [<ChatQuotaDisplay key="d" />, <ChatInput key="i" onSend={onSend} cost={5} />]);
        await box().fill("Hello");
        await userEvent.keyboard("{Enter}");
        expect(onSend).toHaveBeenCalledWith("Hello");
        await expect.element(page.getByText("5 AP pending")).toBeVisible();
        await expect.element(page.getByText("241 of 300 AP left")).toBeVisible();
        await expect.element(box()).toHaveValue("");
        gate.set(quotaOf(236, { version: 2 }));
        answer();
        await expect.element(page.getByText("236 of 300 AP left")).toBeVisible();
        await expect.element(page.getByText("5 AP pending")).not.toBeInTheDocument();
    });

    test("leaves Enter to an input method, and Shift+Enter to new lines", async () => {
        const onSend = vi.fn();
        await shown(null, <ChatInput onSend={onSend} />);
        await box().fill("你好");
        const element = box().element();
        const enter = { key: "Enter", bubbles: true, cancelable: true };
        element.dispatchEvent(new KeyboardEvent("keydown", { ...enter, isComposing: true }));
        element.dispatchEvent(new KeyboardEvent("keydown", { ...enter, keyCode: 229 } as KeyboardEventInit));
        element.dispatchEvent(new KeyboardEvent("keydown", { ...enter, shiftKey: true }));
        expect(onSend).not.toHaveBeenCalled();
        element.dispatchEvent(new KeyboardEvent("keydown", enter));
        expect(onSend).toHaveBeenCalledWith("你好");
    });

    test("blocks only sending, and shows the reason", async () => {
        const onSend = vi.fn();
        const store = new QuotaStore({ source: new Gate(quotaOf(20)), initialQuota: quotaOf(20) });
        const onBlocked = vi.fn();
        await shown(store, <ChatInput onSend={onSend} cost={50} onBlocked={onBlocked} />);
        await userEvent.click(box());
        await userEvent.keyboard("{Enter}");
        expect(onBlocked).not.toHaveBeenCalled();
        await box().fill("A long question");
        await userEvent.keyboard("{Enter}");
        await send().click({ force: true });
        expect(onSend).not.toHaveBeenCalled();
        expect(onBlocked).toHaveBeenCalledWith(expect.objectContaining({ required: 50, remaining: 20, shortfall: 30 }));
        await expect.element(box()).toHaveValue("A long question");
        await expect
            .element(send())
            .toHaveAccessibleDescription("This message costs 50 AP, and 20 AP are left. Your message is kept.");
        store.apply(quotaOf(900, { version: 2, monthlyQuota: 1000 }));
        await send().click();
        expect(onSend).toHaveBeenCalledWith("A long question");
    });

    test("counts windows and grants, and blocks nothing if another model answers", () => {
        const window = { name: "5h", unit: "ap", limit: 80, used: 78, held: 0, remaining: 2, resetsAt: null };
        const state = (change: Partial<Quota>) => ({
            status: "ready" as const,
            quota: quotaOf(100, change),
            pending: 0,
            error: undefined,
        });
        expect(blockedBy(state({}), 100)).toBeUndefined();
        expect(blockedBy(state({ limits: [window] }), 3)).toBe("tooExpensive");
        expect(blockedBy(state({ limits: [window], grantedRemaining: 1 }), 3)).toBeUndefined();
        expect(blockedBy(state({ limits: [{ ...window, remaining: 0 }] }), 1)).toBe("exhausted");
        expect(blockedBy(state({ limits: [{ ...window, unit: "requests", remaining: 0 }] }), 1)).toBe("requests");
        expect(blockedBy(state({ limits: [{ ...window, remaining: 0 }], fallback: "mini" }), 1)).toBeUndefined();
    });

    test("sends what the known quota does not cover, if asked to, so that the gate answers", async () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(0)), initialQuota: quotaOf(0) });
        const onSend = vi.fn(() => Promise.reject(new QuotaExceededError({} as never, undefined)));
        await shown(store, <ChatInput onSend={onSend} sendsBlocked />);
        await box().fill("Hello");
        await send().click();
        await expect.element(box()).toHaveValue("Hello");
        expect(onSend).toHaveBeenCalledOnce();
    });

    test("keeps the draft and text typed meanwhile after a failed send and a reload", async () => {
        let fail = (_: Error) => {};
        const onSend = () => new Promise<void>((_, reject) => (fail = reject));
        const first = await shown(null, <ChatInput onSend={onSend} draftKey="chat-1" />);
        await box().fill("first");
        await userEvent.keyboard("{Enter}");
        await box().fill("second");
        fail(new Error("network error"));
        await expect.element(box()).toHaveValue("first\nsecond");
        await expect.element(page.getByText("The answer failed.", { exact: false })).toBeVisible();
        await first.unmount();
        await shown(null, <ChatInput onSend={onSend} draftKey="chat-1" />);
        await expect.element(box()).toHaveValue("first\nsecond");
    });

    test("without the quota system nothing is blocked and no AP are shown", async () => {
        const onSend = vi.fn();
        await shown(null, [<ChatQuotaDisplay key="d" />, <ChatInput key="i" onSend={onSend} cost={5000} />]);
        await box().fill("Hello");
        await userEvent.keyboard("{Enter}");
        expect(onSend).toHaveBeenCalledWith("Hello");
        expect(document.body.textContent).not.toContain("AP");
    });
});

describe("the dialog", () => {
    const denial = {
        required: 50,
        remaining: 20,
        shortfall: 30,
        quotaResetAt: "2026-12-01T00:00:00Z",
        recommendedUpgrade: null,
    };

    function Chat({ onContinue }: { onContinue: () => void }) {
        const quota = useChatQuota();
        return (
            <>
                <button type="button" onClick={() => quota.apply(quotaOf(20, { version: 9 }))}>
                    elsewhere
                </button>
                <QuotaExceededDialog
                    denial={denial}
                    onClose={() => undefined}
                    onContinue={onContinue}
                    pricingUrl="#plans"
                />
            </>
        );
    }

    test("shows the numbers, keeps the focus, and closes on Escape", async () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(20)), initialQuota: quotaOf(20) });
        const onClose = vi.fn();
        await shown(store, <QuotaExceededDialog denial={denial} onClose={onClose} pricingUrl="#plans" />);
        const dialog = page.getByRole("dialog", { name: "Your chat quota does not cover this message" });
        await expect.element(dialog).toHaveTextContent(/Required50 APAvailable20 APMissing30 AP/);
        await expect.element(dialog).toHaveTextContent("With plus you have 1,000 AP a month, 700 more than now.");
        await expect.element(page.getByRole("link", { name: "See plans" })).toHaveAttribute("href", "#plans");
        for (let tabs = 0; tabs < 6; tabs++) {
            await userEvent.keyboard("{Tab}");
            const focused = document.activeElement;
            expect(focused === document.body || dialog.element().contains(focused)).toBe(true);
        }
        await userEvent.keyboard("{Escape}");
        expect(onClose).toHaveBeenCalledOnce();
    });

    test("recommends no upgrade to a user who has reached the highest level since the denial", async () => {
        const upgraded = quotaOf(20, { membershipLevel: "pro", recommendedUpgrade: null });
        const store = new QuotaStore({ source: new Gate(upgraded), initialQuota: upgraded });
        const recommendedUpgrade = { membershipLevel: "pro", monthlyQuota: 1000, additionalAp: 700 };
        const before = { ...denial, recommendedUpgrade };
        await shown(store, <QuotaExceededDialog denial={before} onClose={() => undefined} pricingUrl="#plans" />);
        await expect.element(page.getByRole("dialog")).toHaveTextContent("Required50 AP");
        expect(page.getByRole("link", { name: "See plans" }).elements()).toEqual([]);
        expect(page.getByRole("dialog").element().textContent).not.toContain("With pro");
    });

    test("names the remedies of the gate, and passes the one that is chosen", async () => {
        const store = new QuotaStore({ source: new Gate(quotaOf(20)), initialQuota: quotaOf(20) });
        const onRemedy = vi.fn();
        const later = new Date(Date.now() + 3 * 86_400_000).toISOString();
        const remedies: Remedy[] = [
            { kind: "wait", until: later },
            { kind: "model", model: "mini", ap: 1 },
            { kind: "pack", pack: "price_1", ap: 500 },
            { kind: "level", membershipLevel: "plus", monthlyQuota: 1000 },
        ];
        const told = { ...denial, remedies };
        await shown(store, <QuotaExceededDialog denial={told} onClose={() => undefined} onRemedy={onRemedy} />);
        const list = page.getByRole("list", { name: "What you can do" });
        await expect.element(list).toHaveTextContent(/Try again at .*20\d\d/);
        for (const name of ["Use mini (1 AP)", "Buy a pack of 500 AP", "Upgrade to plus (1,000 AP a month)"]) {
            await list.getByRole("button", { name }).click();
        }
        expect(onRemedy.mock.calls.map(([remedy]) => remedy)).toEqual(remedies.slice(1));
    });

    test("a limit of requests still binds while AP are left", async () => {
        const limit = { name: "1m-requests", unit: "requests", limit: 2, used: 2, held: 0, resetsAt: null };
        const quota = quotaOf(200, { limits: [{ ...limit, remaining: 0 }] });
        const store = new QuotaStore({ source: new Gate(quota), initialQuota: quota });
        await shown(store, <QuotaExceededDialog denial={denial} onClose={() => undefined} />);
        await expect.element(page.getByRole("heading", { name: /does not cover/ })).toBeVisible();
        store.apply(quotaOf(200, { version: 9, limits: [{ ...limit, used: 0, remaining: 2 }] }));
        await expect.element(page.getByRole("heading", { name: "You can continue" })).toBeVisible();
    });

    test("offers to continue as soon as the quota covers the message", async () => {
        const gate = new Gate(quotaOf(20));
        const onContinue = vi.fn();
        await shown(new QuotaStore({ source: gate }), <Chat onContinue={onContinue} />);
        await expect.element(page.getByRole("button", { name: "Check again" })).toBeVisible();
        gate.set(quotaOf(720, { version: 10, monthlyQuota: 1000, membershipLevel: "plus" }));
        await page.getByRole("button", { name: "Check again" }).click();
        await expect.element(page.getByRole("heading", { name: "You can continue" })).toBeVisible();
        await page.getByRole("button", { name: "Continue" }).click();
        expect(onContinue).toHaveBeenCalledOnce();
    });
});
