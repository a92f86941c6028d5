-- ARGV: name, the longest time between two requests. Answers {holder, secret, the time that is left}, or nothing.
-- Restarts that time.
local name = ARGV[2]
local found = call('HMGET', key('session', name), 'holder', 'secret', 'last')
local ends = number(call('ZSCORE', key('sessions'), name))
if not found[1] or ends <= now then
  forget_session(name)
  return {now, {}}
end
ends = math.min(now + tonumber(ARGV[3]), tonumber(found[3]))
set_session_end(name, found[1], ends)
return {now, {found[1], found[2], string.format('%.0f', ends - now)}}
