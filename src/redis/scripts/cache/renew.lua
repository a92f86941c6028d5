-- Extends a lease that the caller still holds. KEYS: lease. ARGV: token, milliseconds.
if text(KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
