-- ARGV: name, holder, secret, the longest time between two requests, the longest time in all, the largest number of the
-- holder's sessions.
local name, holder = ARGV[2], ARGV[3]
local last = now + tonumber(ARGV[6])
call('HSET', key('session', name), 'holder', holder, 'secret', ARGV[4], 'last', string.format('%.0f', last))
set_session_end(name, holder, math.min(now + tonumber(ARGV[5]), last))
local of = key('sessions:of', holder)
for _, other in ipairs(call('ZRANGE', of, 0, -1 - tonumber(ARGV[7]))) do
  if other ~= name then
    forget_session(other)
    call('ZREM', of, other)
  end
end
return {now, 0}
