-- Publishes lines of one day. The kept text of the day never differs from the lines, because both change at once: the
-- text of a day that is over is made again, so that no reader has to make it; that of the current day, which changes
-- each second, is deleted.
-- KEYS: the lines of the day, `NODE|TEAM|ROUTE` with their numbers; the kept text.
-- ARGV: the seconds for which the lines are kept; 'over' if the text is made, 'current' if it is not; the largest kept
-- text; then the name and the numbers of each line
local names, changed = {}, {}
for at = 4, #ARGV, 2 do names[#names + 1] = ARGV[at] end
local numbers = redis.call('HMGET', KEYS[1], unpack(names))
for at = 1, #names do
  local published = ARGV[2 * at + 3]
  if numbers[at] ~= published then
    changed[#changed + 1], changed[#changed + 2] = names[at], published
  end
end
if #changed > 0 then
  redis.call('HSET', KEYS[1], unpack(changed))
  redis.call('UNLINK', KEYS[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
if ARGV[2] == 'over' and redis.call('EXPIRE', KEYS[2], ARGV[1]) == 0 then
  keep_text(KEYS[2], day_text(KEYS[1]), ARGV[3], ARGV[1])
end
return #changed / 2
