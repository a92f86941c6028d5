-- Returns for each node the number of its last applied change, and the milliseconds since its report. Nodes that were
-- silent for too long are removed. KEYS: membership. ARGV: the longest silence in milliseconds.
local roll, found, now = {}, redis.call('HGETALL', KEYS[1]), redis.call('TIME')
for at = 1, #found, 2 do
  local number, time = string.match(found[at + 1], '^(%d+) (%d+)$')
  local ago = time and now[1] * 1000 + math.floor(now[2] / 1000) - time
  if not ago or ago > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], found[at])
  else
    roll[#roll + 1] = {found[at], tonumber(number), math.max(ago, 0)}
  end
end
return roll
