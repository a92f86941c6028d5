-- Counts a call toward a tenant's quotas unless all nodes together would exceed one.
-- KEYS: a hash for each meter (calls of the day, calls of the month, rupiah of the month): `NODE` = `version:amount`. A
-- node's own amount includes the call, so concurrent calls of a node bring different amounts.
-- ARGV: node, version, then amount and quota (-1: none) of each meter. Answers {0, or the number of the meter whose
-- quota is exceeded, {amounts of the other nodes}}.
local node, version = ARGV[1], tonumber(ARGV[2])
local sums, refused = {}, 0
for k = 1, #KEYS do
  local flat, sum = redis.call('HGETALL', KEYS[k]), 0
  for i = 1, #flat, 2 do
    if flat[i] ~= node then sum = sum + (tonumber(string.match(flat[i + 1], ':(%d+)$')) or 0) end
  end
  sums[k] = sum
  local amount, quota = tonumber(ARGV[1 + 2 * k]), tonumber(ARGV[2 + 2 * k])
  if quota >= 0 and sum + amount > quota then refused = k end
end
if refused == 0 then
  for k = 1, #KEYS do
    local known = redis.call('HGET', KEYS[k], node)
    if not known or (tonumber(string.match(known, '^(%d+):')) or 0) < version then
      redis.call('HSET', KEYS[k], node, ARGV[2] .. ':' .. ARGV[1 + 2 * k])
      redis.call('EXPIRE', KEYS[k], k == 1 and 172800 or 3456000)
    end
  end
end
return {refused, sums}
