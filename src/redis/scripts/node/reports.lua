-- KEYS: the hash of nodes, the hash of their reports. ARGV: the lease in milliseconds, the longest silence in
-- milliseconds, the milliseconds by which a test has moved the clock. Answers identity, name, milliseconds since the
-- last heartbeat and report of each node.
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[3])
local found = {}
local all = call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local node = cmsgpack.unpack(all[at + 1])
  local silent = now - (node.ends - tonumber(ARGV[1]))
  if silent <= tonumber(ARGV[2]) then
    found[#found + 1] = {all[at], node.name, string.format('%.0f', math.max(silent, 0)), call('HGET', KEYS[2], all[at]) or ''}
  end
end
return found
