-- Records that a node is alive and the requests of its tenants. Answers the number of nodes that reported in the last
-- three seconds, and the sum over them for each tenant. KEYS: nodes by time, a hash `TENANT|NODE` = count. ARGV: node,
-- then tenant and count.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - 3000)
redis.call('PEXPIRE', KEYS[1], 10000)
local alive, totals = {}, {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do alive[node] = true end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i] .. '|' .. ARGV[1], ARGV[i + 1])
  totals[ARGV[i]] = 0
end
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local tenant, node = string.match(flat[i], '^([^|]+)|(.+)$')
  if not node or not alive[node] then
    redis.call('HDEL', KEYS[2], flat[i])
  elseif totals[tenant] then
    totals[tenant] = totals[tenant] + (tonumber(flat[i + 1]) or 0)
  end
end
redis.call('PEXPIRE', KEYS[2], 10000)
local list = {}
for i = 2, #ARGV, 2 do list[#list + 1] = totals[ARGV[i]] end
return {redis.call('ZCARD', KEYS[1]), list}
