-- Counts one request against several limits: for all of them, or for none if one has no room.
-- ARGV: how long to remember the request in ms, or 0; then for each limit: 1 for two weighted windows or 0 for one, the
-- request's cost, the limit, the period in ms. KEYS: for each limit its window, and for two the one before; then the request.
-- A window is ulule/limiter's: a number that expires. Of two weighted windows it lives two periods: one that is open, then one
-- as the window before, which loses its weight evenly. Time is what PTTL says, so no clock but that of Redis matters.
-- Answers 0 refused, 1 counted or 2 counted before; then for each limit: 1 if it has room, its count, its ttl, the count of
-- the window before and how long that still weighs.
local seen = ARGV[1] ~= "0" and redis.call("exists", KEYS[#KEYS]) == 1
local room, k, out, counts = true, 0, {0}, {}
for i = 2, #ARGV, 4 do
	local smooth, cost, limit, period = ARGV[i] == "1", tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
	k = k + 1
	local key = KEYS[k]
	local count, ttl = tonumber(redis.call("get", key) or 0), redis.call("pttl", key)
	local before, left = 0, 0
	if ttl == -1 then -- somebody took its end away: nobody may be locked out for ever
		redis.call("pexpire", key, period)
		ttl = period
	end
	if smooth then
		k = k + 1
		if ttl >= 0 and ttl <= period then
			redis.call("rename", key, KEYS[k])
			count, ttl = 0, -2
		end
		left = redis.call("pttl", KEYS[k])
		if left > 0 then
			before = tonumber(redis.call("get", KEYS[k]) or 0)
			left = math.min(left, period)
		else
			left = 0
		end
		if ttl < 0 then
			ttl = period + (left > 0 and left or period)
		end
	elseif ttl < 0 then
		ttl, count = period, 0
	end
	local fits = count + before * left / period + cost <= limit
	room = room and fits
	counts[#counts + 1] = {key, cost, ttl, #out + 2}
	out[#out + 1] = fits and 1 or 0
	out[#out + 1] = count
	out[#out + 1] = ttl
	out[#out + 1] = before
	out[#out + 1] = left
end
if seen then
	out[1] = 2
elseif room then
	out[1] = 1
	for _, c in ipairs(counts) do
		if c[2] > 0 then
			out[c[4]] = redis.call("incrby", c[1], c[2])
			if out[c[4]] == c[2] then
				redis.call("pexpire", c[1], c[3])
			end
		end
	end
	if ARGV[1] ~= "0" then
		redis.call("set", KEYS[#KEYS], "1", "px", ARGV[1])
	end
end
return out
