-- Gives the reported outcomes of records to lost calls of the same account, route and reference, each to one call.
-- KEYS: the lost calls, `NODE|NUMBER|BOOKED` by the milliseconds of their booking; the reports that wait, by the
--   record, as `OUTCOME:MILLISECONDS`; the records whose report was given to a call, with the call and the outcome; the
--   stream of settlements, which all nodes read; the reports by the record alone, which the node of its call takes; the
--   times of these.
-- ARGV: seconds that calls and used reports are kept, entries that the stream keeps, the step, and what it needs:
--   tell, record, `OUTCOME:MILLISECONDS`; offer, call, milliseconds of its booking; named, record
local kept, most, step = ARGV[1], ARGV[2], ARGV[3]

local function take(record)
  redis.call('HDEL', KEYS[5], record)
  redis.call('ZREM', KEYS[6], record)
end

local function announce(record, outcome, call)
  local hex = string.gsub(record, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', most, '*', 'paired', hex, 'outcome', outcome, 'call', call, 'by', 'reference')
end

if step == 'tell' then
  if redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then return 0 end
  local known = redis.call('HGET', KEYS[2], ARGV[4])
  -- A pending record may have ended: a later report replaces the report `2` (pending).
  if not known or string.sub(known, 1, 1) == '2' then redis.call('HSET', KEYS[2], ARGV[4], ARGV[5]) end
elseif step == 'offer' then
  -- The node may have missed what was given to its call.
  local used = redis.call('HGETALL', KEYS[3])
  for at = 1, #used, 2 do
    local call, outcome = string.match(used[at + 1], '^(.+) (%d)$')
    if call == ARGV[4] then
      announce(used[at], outcome, call)
      return 0
    end
  end
  redis.call('ZADD', KEYS[1], ARGV[5], ARGV[4])
else
  redis.call('HDEL', KEYS[2], ARGV[4])
  take(ARGV[4])
  -- Another node may still tell this record's report. The mark makes that report void.
  if redis.call('HSETNX', KEYS[3], ARGV[4], '') == 1 and redis.call('TTL', KEYS[3]) < 0 then
    redis.call('EXPIRE', KEYS[3], 600)
  end
  return 0
end

local said, waiting = redis.call('HGETALL', KEYS[2]), {}
for at = 1, #said, 2 do
  local outcome, time = string.match(said[at + 1], '^(%d):(%d+)$')
  waiting[#waiting + 1] = {record = said[at], outcome = outcome, time = tonumber(time)}
end
table.sort(waiting, function(one, other)
  if one.time ~= other.time then return one.time < other.time end
  return one.record < other.record
end)
for _, report in ipairs(waiting) do
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  -- What was said is not about a call that was booked later.
  if oldest[1] and tonumber(oldest[2]) <= report.time then
    redis.call('ZREM', KEYS[1], oldest[1])
    redis.call('HDEL', KEYS[2], report.record)
    redis.call('HSET', KEYS[3], report.record, oldest[1] .. ' ' .. report.outcome)
    -- The call is bound to a record that is pending, and takes its outcome by the record.
    if report.outcome ~= '2' then take(report.record) end
    announce(report.record, report.outcome, oldest[1])
  end
end
redis.call('EXPIRE', KEYS[1], kept)
-- A week: a node that is down for longer has to be settled by hand.
redis.call('EXPIRE', KEYS[2], 604800)
redis.call('EXPIRE', KEYS[3], kept)
return 1
