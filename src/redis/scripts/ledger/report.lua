-- Stores the reported outcomes of records whose calls are another node's, until the node of the call takes them.
-- KEYS: the reports by the record, as the outcome, followed by the reference if there is one; the records by the
--   milliseconds of their reports.
-- ARGV: seconds that a report is kept, reports that are kept, and then record and report of each.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function forget(records)
  for _, record in ipairs(records) do
    redis.call('HDEL', KEYS[1], record)
    redis.call('ZREM', KEYS[2], record)
  end
end

for at = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  redis.call('ZADD', KEYS[2], now, ARGV[at])
end
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[2])
if surplus > 0 then forget(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) end
forget(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1] * 1000, 'LIMIT', 0, 1000))
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return redis.call('ZCARD', KEYS[2])
