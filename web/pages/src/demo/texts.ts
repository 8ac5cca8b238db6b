/** The page's own texts. The components include theirs. */

import type { Upgrade } from "@quota-gate/client";

export interface Texts {
    title: string;
    lead: string;
    user: string;
    model: string;
    language: string;
    models: Record<string, string>;
    conversation: string;
    you: string;
    stop: string;
    stopped: string;
    /** Before the first word. */
    failed: string;
    /** After it. */
    brokeOff: string;
    plans: string;
    take: (upgrade: Upgrade) => string;
    current: (level: string) => string;
}

export const texts: Record<"en" | "zh-CN", Texts> = {
    en: {
        title: "Chat demo",
        lead: "Each message uses AP: of your monthly quota, of a window if your plan has one, and then of packs. An answer that fails before its first word is free.",
        user: "Signed in as",
        model: "Model",
        language: "Language",
        models: { local: "local, 1 AP", "local-large": "local-large, 25 AP" },
        conversation: "Conversation",
        you: "You",
        stop: "Stop",
        stopped: "Stopped.",
        failed: "The answer failed.",
        brokeOff: "The answer broke off.",
        plans: "Plans",
        take: ({ membershipLevel, monthlyQuota, additionalAp }) =>
            `Upgrade to ${membershipLevel}: ${monthlyQuota} AP/month (+${additionalAp})`,
        current: (level) => `Your plan is ${level}.`,
    },
    "zh-CN": {
        title: "额度网关演示",
        lead: "每条消息消耗 AP：先用每月额度（套餐可能有时间窗口限制），再用加油包。回答在输出第一个字之前失败，则免费。",
        user: "当前用户",
        model: "模型",
        language: "语言",
        models: { local: "local，1 AP", "local-large": "local-large，25 AP" },
        conversation: "对话",
        you: "您",
        stop: "停止",
        stopped: "已停止。",
        failed: "回答失败。",
        brokeOff: "回答中断。",
        plans: "套餐",
        take: ({ membershipLevel, monthlyQuota, additionalAp }) =>
            `升级到 ${membershipLevel}：每月 ${monthlyQuota} AP（+${additionalAp}）`,
        current: (level) => `您的套餐是 ${level}。`,
    },
};
