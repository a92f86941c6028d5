-- Creates missing epochs, and returns all epochs and every change after the node's last known one.
-- KEYS: epochs, number, changes. ARGV: the last known change, then name and value of each epoch.
for at = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1]) end
return {
  tonumber(redis.call('GET', KEYS[2])),
  redis.call('HGETALL', KEYS[1]),
  redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'WITHSCORES'),
}
