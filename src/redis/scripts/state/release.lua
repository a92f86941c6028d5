-- ARGV: record, the largest number of callbacks to release. Answers the number of released ones.
return {now, release(ARGV[2], tonumber(ARGV[3]))}
