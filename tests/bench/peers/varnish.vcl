# Varnish, keyed on the whole body like nginx alone. It logs to shared memory; nothing writes that log to a file.
vcl 4.1;
import bodyaccess;
import std;
import vsthrottle;

backend iluma { .host = "127.0.0.1"; .port = "@UP@"; }

sub vcl_recv {
  if (req.http.Authorization != "Basic @KEY_LENDING@" && req.http.Authorization != "Basic @KEY_PAYMENTS@"
      && req.http.Authorization != "Basic @KEY_ONBOARDING@") { return (synth(401)); }
  if (vsthrottle.is_denied(req.http.Authorization, 1000000, 1s)) { return (synth(429)); }
  set req.http.X-Asked = req.method;       # a fetch for the cache would turn the POST into a GET
  if (req.url == "@BANK_PATH@") {
    std.cache_req_body(64KB);
    return (hash);
  }
  return (pass);
}

sub vcl_hash {
  hash_data(req.url);
  bodyaccess.hash_req_body();
  return (lookup);
}

sub vcl_backend_fetch {
  set bereq.method = bereq.http.X-Asked;
  unset bereq.http.X-Asked;
  set bereq.http.Authorization = "Basic @ACCOUNT_KEY@";
}

sub vcl_backend_response {
  set beresp.ttl = 1h;
  return (deliver);
}
