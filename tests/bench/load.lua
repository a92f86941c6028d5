-- The load of the benchmark for wrk: the requests, and one line of figures at the end.
-- BENCH_KEYS holds the teams' keys in base64 for Basic authentication. BENCH_KIND is "bank", "ktp", or "new": bank
-- accounts that were not asked for before, from BENCH_FIRST on.

local bodies = 64                 -- distinct requests; 3 teams send each of them, so 192 in all
local requests, turn = {}, 0

local shapes = {
  bank = function(n)
    return ('{"bank_account_number":"%010d","bank_code":"BCA","reference_id":"loan-%04d"}'):format(8800100000 + n, n)
  end,
  ktp = function(n)
    return ('{"nik":"3171%012d","name":"SITI RAHMAWATI"}'):format(120590000000 + n)
  end,
}

local new = tonumber(os.getenv("BENCH_FIRST"))

function init()
  local keys = {}
  for key in os.getenv("BENCH_KEYS"):gmatch("%S+") do keys[#keys + 1] = key end
  local kind = os.getenv("BENCH_KIND")
  if kind == "new" then request = ask_new(keys) end
  local shape = shapes[kind] or shapes.bank
  -- 3 and 64 have no common factor, so counting both together visits every pair.
  for n = 0, bodies * #keys - 1 do
    local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Basic " .. keys[n % #keys + 1] }
    requests[n + 1] = wrk.format("POST", nil, headers, shape(n % bodies))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function ask_new(keys)
  local heads = {}
  for n, key in ipairs(keys) do
    heads[n] = { ["Content-Type"] = "application/json", ["Authorization"] = "Basic " .. key }
  end
  return function()
    new = new + 1
    return wrk.format("POST", nil, heads[new % #heads + 1], shapes.bank(new))
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(("FIGURES %d %.0f %.3f %.3f %d\n"):format(
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    e.connect + e.read + e.write + e.status + e.timeout))
end
