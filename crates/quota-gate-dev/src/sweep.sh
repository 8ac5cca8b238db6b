# Removes a directory when its owner ends: when standard input, a pipe that only the owner holds, closes.
# Servers in it may be ending at the same time and still write, so it retries for a while.
#
# sweep DIRECTORY

while read -r _; do :; done
tries=0
until rm -rf -- "$1" 2>/dev/null || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
