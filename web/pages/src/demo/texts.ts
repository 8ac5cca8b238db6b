/** The page's own texts; those of the components come with them. */

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
    failed: string;
    plans: string;
    take: (level: string) => string;
    current: (level: string) => string;
}

export const texts: Record<"en" | "zh-CN", Texts> = {
    en: {
        title: "A chat through the quota gate",
        lead: "Every message costs AP of a monthly quota. A failed answer costs nothing.",
        user: "Signed in as",
        model: "Model",
        language: "Language",
        models: { local: "local, 1 AP", "local-large": "local-large, 25 AP" },
        conversation: "Conversation",
        you: "You",
        stop: "Stop",
        stopped: "Stopped.",
        failed: "The answer failed.",
        plans: "Plans",
        take: (level) => `Upgrade to ${level}`,
        current: (level) => `Your plan is ${level}.`,
    },
    "zh-CN": {
        title: "经过额度网关的聊天",
        lead: "每条消息都会消耗每月额度中的 AP。失败的回答不消耗额度。",
        user: "当前用户",
        model: "模型",
        language: "语言",
        models: { local: "local，1 AP", "local-large": "local-large，25 AP" },
        conversation: "对话",
        you: "您",
        stop: "停止",
        stopped: "已停止。",
        failed: "回答失败。",
        plans: "套餐",
        take: (level) => `升级到 ${level}`,
        current: (level) => `您的套餐是 ${level}。`,
    },
};
