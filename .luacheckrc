-- Lua in Redis 7: version 5.1, without modules or file system, with Redis' libraries.
std = {
    read_globals = {
        "ARGV", "KEYS", "NAME", "redis",
        "bit", "cjson", "cmsgpack", "struct",
        "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset",
        "_G", "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
        math = { other_fields = true },
        string = { other_fields = true },
        table = { other_fields = true },
    },
}
max_line_length = 120
