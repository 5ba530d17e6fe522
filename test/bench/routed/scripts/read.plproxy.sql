SELECT plproxy_way.balance(:aid);
