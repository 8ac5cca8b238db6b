/** All texts, in Simplified Chinese. */

import type { Messages } from "../messages.js";

export const zhCN: Messages = {
    quota: "聊天额度",
    loading: "正在加载额度…",
    unavailable: "暂时无法显示额度。",
    stale: "数据可能略有延迟。",
    signedOut: "请重新登录以查看额度。",
    remaining: (remaining, total) => `剩余 ${remaining} / ${total} AP`,
    used: (used) => `本月已用 ${used} AP`,
    today: (used) => `今日已用 ${used} AP`,
    held: (held) => `生成中的回答占用 ${held} AP`,
    pending: (pending) => `待确认 ${pending} AP`,
    resets: (at, relative) => `${relative}重置（${at}）`,
    window: (remaining, limit, every) => `每 ${every}：剩余 ${remaining} / ${limit} AP`,
    windowRequests: (remaining, limit, every) => `每 ${every}：剩余 ${remaining} / ${limit} 条消息`,
    concurrency: (held, limit) => `正在生成 ${held} / ${limit} 个回答`,
    windowResets: (at) => `${at} 重置`,
    extra: (left, expires) => `额外 ${left} AP${expires === undefined ? "" : `，有效期至 ${expires}`}`,
    fallback: (model) => `在此之前由 ${model} 回答。`,
    refresh: "刷新",
    level: (level) => level,
    announcement: (level, remaining) =>
        level === "exhausted"
            ? "聊天额度已用完。"
            : level === "critical"
              ? `聊天额度仅剩 ${remaining} AP。`
              : `聊天额度已使用超过 80%，剩余 ${remaining} AP。`,
    exceededTitle: "聊天额度不足，无法发送此消息",
    exceededBody: (required, remaining) => `此消息需要 ${required} AP，当前剩余 ${remaining} AP。`,
    required: "需要",
    available: "可用",
    shortfall: "还差",
    upgrade: (level, quota, additional) => `升级到 ${level} 后每月可用 ${quota} AP，比现在多 ${additional} AP。`,
    whatHelps: "您可以",
    waitUntil: (at) => `${at} 后重试`,
    useModel: (model, ap) => `改用 ${model}（${ap} AP）`,
    buyPack: (ap) => `购买 ${ap} AP 加油包`,
    takeLevel: (level, quota) => `升级到 ${level}（每月 ${quota} AP）`,
    seePlans: "查看套餐",
    checkAgain: "刷新",
    checking: "正在刷新…",
    notCharged: "未扣除额度，消息已保留。",
    close: "关闭",
    readyTitle: "可以继续",
    readyBody: (remaining) => `额度已足够发送此消息，剩余 ${remaining} AP。`,
    continue: "继续",
    message: "消息",
    placeholder: "输入消息",
    send: "发送",
    cost: (ap) => `消耗 ${ap} AP`,
    blocked: (why, cost, remaining) =>
        why === "exhausted"
            ? "聊天额度已用完，消息已保留。"
            : why === "requests"
              ? "目前可发送的消息数已达上限，消息已保留。"
              : `此消息需要 ${cost} AP，剩余 ${remaining} AP。消息已保留。`,
    notSent: "消息未发送。未扣除额度，消息已保留。",
    failed: "回答失败，消息已保留。",
};
