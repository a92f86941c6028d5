-- Grants slots of an account's rate to the tenants of all nodes by weight.
-- KEYS: a hash of the account: `full`, the time at which its bucket is full again; `v`, the virtual time; `t:TENANT`,
-- the virtual finish time of a tenant's first waiter, as long as any node has a waiter; `w:NODE`, the demand of a node
-- and its expiry. The next slot goes to the tenant with the earliest finish time among all demands. A node whose tenant
-- is not next asks again later, unless a slot has been free for half the time of a bucket.
-- ARGV: node, slots per second, burst, 1 if the last slots were granted without Redis, then tenant, weight and count of
-- each.
-- Answers {microseconds until the next query makes sense, waiters of all nodes, own waiters, {tenant, slots, ...}}.
-- Times are microseconds, which a Lua number holds exactly for more than 200 years.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local node, interval, burst = ARGV[1], 1000000 / ARGV[2], tonumber(ARGV[3])
local flat, state = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
local full = tonumber(state.full or 0) or 0
if ARGV[4] == '1' then full = math.max(full, now + interval * (burst - 1)) end
local v = tonumber(state.v or 0) or 0
local weights, mine, others, all, own = {}, {}, {}, 0, 0
for field, value in pairs(state) do
  if string.sub(field, 1, 2) == 'w:' and field ~= 'w:' .. node then
    local ok, want = pcall(cjson.decode, value)
    if not ok or want[1] < now then
      redis.call('HDEL', KEYS[1], field)
    else
      for i = 2, #want, 3 do
        weights[want[i]] = want[i + 1]
        others[want[i]] = (others[want[i]] or 0) + want[i + 2]
        all = all + want[i + 2]
      end
    end
  end
end
for i = 5, #ARGV, 3 do
  weights[ARGV[i]] = tonumber(ARGV[i + 1])
  mine[ARGV[i]] = tonumber(ARGV[i + 2])
  own = own + mine[ARGV[i]]
end
all = all + own
local tags = {}
for tenant, weight in pairs(weights) do
  tags[tenant] = tonumber(state['t:' .. tenant] or '') or v + 1 / weight
end
local function due(of)
  local best, first
  for tenant, tag in pairs(tags) do
    if (of[tenant] or 0) > 0 then
      if not first or tag < first or (tag == first and tenant < best) then best, first = tenant, tag end
    end
  end
  return best, first
end
local given, wait, turns = {}, interval, {}
while true do
  local tenant, tag = due(mine)
  if not tenant then break end
  local short = full - now - interval * (burst - 1)
  if short > 0 then wait = short break end
  local other, before = due(others)
  if other and before < tag and -short < interval * burst / 2 then break end
  mine[tenant] = mine[tenant] - 1
  v = tag
  tags[tenant] = tag + 1 / weights[tenant]
  full = math.max(full, now) + interval
  given[tenant] = (given[tenant] or 0) + 1
end
for tenant, tag in pairs(tags) do
  if (mine[tenant] or 0) + (others[tenant] or 0) > 0 then
    redis.call('HSET', KEYS[1], 't:' .. tenant, string.format('%.9f', tag))
  end
end
for field in pairs(state) do
  if string.sub(field, 1, 2) == 't:' then
    local tenant = string.sub(field, 3)
    if (mine[tenant] or 0) + (others[tenant] or 0) == 0 then redis.call('HDEL', KEYS[1], field) end
  end
end
local want = {now + wait + 2 * interval + 250000}
for tenant, count in pairs(mine) do
  if count > 0 then
    want[#want + 1] = tenant want[#want + 1] = weights[tenant] want[#want + 1] = count
  end
end
if #want > 1 then
  redis.call('HSET', KEYS[1], 'w:' .. node, cjson.encode(want))
else
  redis.call('HDEL', KEYS[1], 'w:' .. node)
end
redis.call('HSET', KEYS[1], 'full', string.format('%.0f', full), 'v', string.format('%.9f', v))
redis.call('PEXPIRE', KEYS[1], 120000)
for tenant, count in pairs(given) do
  turns[#turns + 1] = tenant turns[#turns + 1] = tostring(count)
end
return {math.ceil(wait), all, own, turns}
