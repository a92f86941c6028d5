-- ARGV: the reason, endpoints. Pauses each.
for at = 3, #ARGV do
  set_pause(ARGV[at], {reason = ARGV[2], since = now})
end
return {now, 0}
