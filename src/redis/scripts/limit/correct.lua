-- Gives back unused slots. KEYS: those of fair_queue.lua.
-- ARGV: slots per second, burst, slots to give back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = 1000000 / ARGV[1]
local full = math.max(tonumber(redis.call('HGET', KEYS[1], 'full') or 0) or 0, now)
full = full - interval * ARGV[3]
redis.call('HSET', KEYS[1], 'full', string.format('%.0f', full))
redis.call('PEXPIRE', KEYS[1], 120000)
return 1
