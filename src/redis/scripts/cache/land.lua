-- Shares a result that is not cached with the waiters, if there are any, and ends the lease.
-- KEYS: lease, wanted, shared result. ARGV: token, result, its milliseconds, channel, the name of the entry.
if text(KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
if redis.call('DEL', KEYS[2]) == 1 then
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 1
