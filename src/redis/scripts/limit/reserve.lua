-- Counts a call toward a tenant's quotas unless all nodes together have reached a quota.
-- KEYS: a hash of the day and one of the month: `NODE` = `version:count`. A node sends its own count, so each of
-- several concurrent calls has its own number.
-- ARGV: node, version, then count and quota (-1: none) of the day and of the month. Answers {0, or 1 or 2 for the
-- reached quota, counts of the other nodes in both}.
local node, version = ARGV[1], tonumber(ARGV[2])
local sums, refused = {}, 0
for k = 1, 2 do
  local flat, sum = redis.call('HGETALL', KEYS[k]), 0
  for i = 1, #flat, 2 do
    if flat[i] ~= node then sum = sum + (tonumber(string.match(flat[i + 1], ':(%d+)$')) or 0) end
  end
  sums[k] = sum
  local count, quota = tonumber(ARGV[1 + 2 * k]), tonumber(ARGV[2 + 2 * k])
  if quota >= 0 and sum + count > quota then refused = k end
end
if refused == 0 then
  for k = 1, 2 do
    local known = redis.call('HGET', KEYS[k], node)
    if not known or (tonumber(string.match(known, '^(%d+):')) or 0) < version then
      redis.call('HSET', KEYS[k], node, ARGV[2] .. ':' .. ARGV[1 + 2 * k])
      redis.call('EXPIRE', KEYS[k], k == 1 and 172800 or 3456000)
    end
  end
end
return {refused, sums[1], sums[2]}
