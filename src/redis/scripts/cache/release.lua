-- Ends a lease that the caller still holds, and wakes the waiters, one of which becomes the leader.
-- KEYS: lease, wanted. ARGV: token, channel, the name of the entry.
if text(KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
