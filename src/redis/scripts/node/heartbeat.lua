-- KEYS: the hash of nodes, the hash of their reports. ARGV: this node's identity, its incarnation, its name, its keys,
-- the lease in milliseconds (0: leave), the milliseconds by which a test has moved the clock, its report for operators.
-- Answers {1 if this incarnation holds the identity, else 0; the name of the holder; the remaining milliseconds of its
-- lease; {name, keys, ...} of each live node}.
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[6])
local nodes, id = KEYS[1], ARGV[1]
local own = call('HGET', nodes, id)
own = own and cmsgpack.unpack(own)
if own and own.incarnation ~= ARGV[2] and own.ends > now then
  return {0, own.name, string.format('%.0f', own.ends - now), {}}
end
if ARGV[5] == '0' then
  call('HDEL', nodes, id)
  call('HDEL', KEYS[2], id)
  return {1, '', '0', {}}
end
call('HSET', nodes, id, cmsgpack.pack({
  incarnation = ARGV[2], name = ARGV[3], keys = ARGV[4], ends = now + tonumber(ARGV[5]),
}))
call('HSET', KEYS[2], id, ARGV[7])
local there = {}
local all = call('HGETALL', nodes)
for at = 1, #all, 2 do
  local node = cmsgpack.unpack(all[at + 1])
  if node.ends > now then
    table.insert(there, node.name)
    table.insert(there, node.keys)
  elseif node.ends < now - 86400000 then
    call('HDEL', nodes, all[at])
    call('HDEL', KEYS[2], all[at])
  end
end
return {1, ARGV[3], ARGV[5], there}
