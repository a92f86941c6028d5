-- Begins a change: a number, new epochs, tombstones, an entry in the list, a message to every node.
-- KEYS: epochs, number, changes, then tombstones. ARGV: entry of the list, the list's largest length, milliseconds of a
-- tombstone, channel, then name and value of each new epoch.
local number = redis.call('INCR', KEYS[2])
for at = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
for at = 4, #KEYS do redis.call('SET', KEYS[at], number, 'PX', ARGV[3]) end
redis.call('ZADD', KEYS[3], number, number .. ':' .. ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[2])
redis.call('PUBLISH', ARGV[4], number)
return number
