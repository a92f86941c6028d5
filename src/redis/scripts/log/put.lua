-- Writes entries of a log, and removes some that are older than it keeps them.
-- KEYS: ids in order, hash of entries. ARGV: the lowest id that is kept, then id and text of each entry.
local call = redis.call
for at = 2, #ARGV, 2 do
  call('ZADD', KEYS[1], 0, ARGV[at])
  call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
local old = call('ZRANGEBYLEX', KEYS[1], '-', '(' .. ARGV[1], 'LIMIT', 0, 100)
if #old > 0 then
  call('ZREM', KEYS[1], unpack(old))
  call('HDEL', KEYS[2], unpack(old))
end
return #old
