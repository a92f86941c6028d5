-- Stores an entry unless a person in it was erased since its call began, indexes it by its tags, ends the lease, and
-- wakes the waiters. An entry that can't be indexed is not stored, because an erasure would not find it; the foreign
-- value in the way stays, so that an erasure notices it. Answers 1 if the entry is stored.
-- KEYS: entry, lease, wanted, the copy that outlives the entry, then each tag's set and tombstone in turn.
-- ARGV: token, entry, its milliseconds, the last known change when the call began, channel, the name of the entry,
-- copy, milliseconds by which the copy outlives the entry.
local stored = 1
for at = 5, #KEYS, 2 do
  local filed = redis.call('TYPE', KEYS[at]).ok
  if filed ~= 'set' and filed ~= 'none' then stored = 0 end
  if redis.call('EXISTS', KEYS[at + 1]) == 1 then
    local erased = tonumber(text(KEYS[at + 1]) or '')
    if not erased or erased > tonumber(ARGV[4]) then stored = 0 end
  end
end
if stored == 1 then
  local keep = tonumber(ARGV[3])
  redis.call('SET', KEYS[1], ARGV[2], 'PX', keep)
  if ARGV[7] ~= '' then
    keep = keep + tonumber(ARGV[8])
    redis.call('SET', KEYS[4], ARGV[7], 'PX', keep)
  end
  for at = 5, #KEYS, 2 do
    redis.call('SADD', KEYS[at], KEYS[1], KEYS[4])
    if redis.call('PTTL', KEYS[at]) < keep then redis.call('PEXPIRE', KEYS[at], keep) end
  end
end
if ARGV[1] ~= '' and text(KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
redis.call('DEL', KEYS[3])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return stored
