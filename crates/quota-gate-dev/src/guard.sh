# Runs a server and ends it when the process that asked for it has ended.
#
# Standard input is the lifeline: a pipe whose other end the owner holds and never shares. It closes when the owner
# lets go of it and also when the owner is killed, whatever killed it. A line on it replaces the signals to end with.
# Standard output gets the server's process id and is closed; standard error is the log. Exits when the server does.
#
# guard PATIENCE_SECONDS SIGNALS SERVER [ARGUMENT...]
#   PATIENCE_SECONDS  how long each signal may take before the next one is sent
#   SIGNALS           the signals to end the server with, in this order, for example 'INT QUIT'; KILL comes last

patience_seconds=$1
signals=$2
shift 2

exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
echo "$server"
exec >&2

{
    while read -r line <&3; do signals=$line; done
    for signal in $signals KILL; do
        kill -s "$signal" "$server" 2>/dev/null || exit 0
        kill -s CONT "$server" 2>/dev/null # it may have been made to stand still
        tenths=0
        while [ "$tenths" -lt $((patience_seconds * 10)) ]; do
            kill -s 0 "$server" 2>/dev/null || exit 0
            sleep 0.1 >/dev/null 2>&1
            tenths=$((tenths + 1))
        done
    done
} &
watch=$!
exec 3<&-

# Asked to end, the guard ends the server first. `wait` returns early then, so it is called again.
trap 'kill -s TERM "$server" 2>/dev/null' HUP INT TERM
wait "$server"
while kill -s 0 "$server" 2>/dev/null; do wait "$server"; done
kill -s KILL "$watch" 2>/dev/null
wait "$watch" 2>/dev/null
exit 0
