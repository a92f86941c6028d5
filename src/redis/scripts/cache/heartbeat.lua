-- Records that a node has applied every change up to a number, and the number of entries that it removed for each.
-- KEYS: membership, then a count for each change. ARGV: node, number, then the increment of each count.
local is = redis.call('TYPE', KEYS[1]).ok
if is ~= 'hash' and is ~= 'none' then redis.call('DEL', KEYS[1]) end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %d%03d', ARGV[2], now[1], math.floor(now[2] / 1000)))
for at = 2, #KEYS do
  redis.call('INCRBY', KEYS[at], ARGV[at + 1])
  redis.call('EXPIRE', KEYS[at], 60)
end
return 1
